"""Scores and rankings of the library: what counts, what is refused, and how rerankers are asked."""

import math

import pytest
from tiny_text_checkpoint import byte_tokenizer, write_text_checkpoint
from tokenizers import AddedToken

import metal_gen
from metal_gen.errors import CheckpointError, DoesNotFitError, UsageError
from metal_gen.scoring.reranker import PREFIX, SUFFIX

pytest_plugins = ("fixtures_text",)

LENGTH = 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with random weights, a chat template, and tokens for yes and no."""
    folder = write_text_checkpoint(tmp_path_factory.mktemp("model"), max_position_embeddings=LENGTH)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("yes", normalized=False), AddedToken("no", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return metal_gen.load(folder, max_seq_len=LENGTH)


def test_every_token_but_the_first_counts(model):
    whole = metal_gen.score(model, "a caf\u00e9", per_token=True)
    assert (whole.tokens, whole.nbytes) == (6, 6)
    assert list(whole.token_ids) == list("a caf\u00e9".encode())[1:]
    assert whole.logprob == pytest.approx(sum(whole.logprobs))
    assert whole.logprob_per_token == pytest.approx(whole.logprob / 6)
    assert whole.perplexity == pytest.approx(math.exp(-whole.logprob / 6))
    assert whole.bits_per_byte == pytest.approx(-whole.logprob / math.log(2) / 6)
    assert metal_gen.score(model, ["a c", "af\u00e9"]) == metal_gen.score(model, "a caf\u00e9")


def test_after_a_prompt_all_tokens_of_the_text_count_and_none_of_the_prompt(model):
    raw = metal_gen.score(model, "bc", prompt="a", raw=True)
    assert (raw.tokens, raw.nbytes, raw.prompt_tokens) == (2, 2, 1)
    assert raw.logprob == pytest.approx(metal_gen.score(model, "abc").logprob, abs=1e-5)
    asked = metal_gen.score(model, "bc", prompt="a")
    messages = metal_gen.score(model, "bc", prompt=[{"role": "user", "content": "a"}])
    assert asked == messages
    assert asked.prompt_tokens == len("Xuser\naX\nXassistant")
    rendered = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant"
    joined = metal_gen.score(model, rendered + "bc", per_token=True)
    assert sum(joined.logprobs[-2:]) == pytest.approx(asked.logprob, abs=1e-4)


def test_a_perplexity_that_no_float_holds_is_infinite():
    assert metal_gen.TextScore(tokens=1, logprob=-1e6, nbytes=1).perplexity == math.inf
    assert metal_gen.TextScore(tokens=1, logprob=-1.0, nbytes=0).bits_per_byte is None


@pytest.mark.parametrize(
    ("text", "settings", "kind", "part"),
    [
        ("", {}, UsageError, "the text is empty"),
        ("a", {}, UsageError, "a single token"),
        ("a\ud800", {}, UsageError, "not Unicode text"),
        ("", {"prompt": "a"}, UsageError, "the text is empty"),
        ("a", {"prompt": ""}, UsageError, "the prompt is empty"),
        ("a" * 500, {"prompt": "a"}, DoesNotFitError, "have 519 tokens together, and max_seq_len is 512"),
        ("ab", {"stride": LENGTH}, UsageError, "the stride must be from 1 to 511"),
        ("ab", {"stride": 0}, UsageError, "the stride must be from 1 to 511"),
        ("ab", {"temperature": 1.0}, UsageError, "temperature has no effect on a score"),
    ],
)
def test_what_cannot_be_scored_is_refused(model, text, settings, kind, part):
    with pytest.raises(kind, match=part):
        metal_gen.score(model, text, **settings)


def test_a_cache_of_one_token_scores_nothing(folder):
    with pytest.raises(DoesNotFitError, match="2 tokens at least"):
        metal_gen.score(metal_gen.load(folder, max_seq_len=1), "ab")


def test_logits_that_are_not_finite_have_no_score(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = math.nan
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="logits are not finite"):
        metal_gen.score(metal_gen.load(tmp_path), "abc")


def test_choices_keep_the_order_of_equals_and_duplicates_their_places(model):
    ranking = metal_gen.rank(model, prompt="a", choices=["x", "y", "x"])
    assert [item.text for item in ranking.items].count("x") == 2
    places = [item.index for item in ranking.items if item.text == "x"]
    assert places == [0, 2]
    scores = [item.score for item in ranking.items]
    assert scores == sorted(scores, reverse=True)
    assert (ranking.method, ranking.prompt_tokens) == ("sum", 19)


def test_a_choice_after_a_prompt_has_the_score_of_that_text(model):
    ranking = metal_gen.rank(model, prompt="ab", choices=["cd", "e"], by="mean")
    for item in ranking.items:
        alone = metal_gen.score(model, item.text, prompt="ab")
        assert item.logprob == pytest.approx(alone.logprob, abs=1e-5)
        assert item.score == pytest.approx(alone.logprob_per_token, abs=1e-5)
        assert item.tokens == len(item.text)


def test_tokens_of_the_prompt_stay_when_a_choice_begins_within_a_character_or_a_tag(model):
    """`<|im_` and `end|>` would be one token together, and a letter with an accent could be one."""
    for prompt, choice in (("a<|im_", "end|>"), ("e", "\u0301")):
        [item] = metal_gen.rank(model, prompt=prompt, choices=[choice], raw=True).items
        assert item.tokens == len(choice.encode())


def test_a_reranker_is_asked_as_published(folder, model, tmp_path):
    named = tmp_path / "Qwen3-Reranker-tiny"
    named.symlink_to(folder)
    reranker = metal_gen.load(named, max_seq_len=LENGTH)
    documents = ["a fox", "an owl", "a fox"]
    ranking = metal_gen.rank(reranker, query="who?", documents=documents, instruction="Find it")
    assert ranking.method == "reranker"
    for item in ranking.items:
        asked = f"<Instruct>: Find it\n<Query>: who?\n<Document>: {item.text}"
        prompt = PREFIX + asked + SUFFIX
        yes, no = (
            metal_gen.score(model, answer, prompt=prompt, raw=True).logprob for answer in ("yes", "no")
        )
        assert item.score == pytest.approx(1 / (1 + math.exp(no - yes)), abs=1e-4)
        assert item.logprob is None
    [first, second] = [item.score for item in ranking.items if item.text == "a fox"]
    assert first == second
    asked = {"query": "who?", "documents": documents, "instruction": "Find it"}
    forced = metal_gen.rank(model, **asked, method="reranker")
    assert [item.score for item in forced.items] == pytest.approx([item.score for item in ranking.items])


def test_other_models_rank_by_the_likelihood_of_the_query(model):
    ranking = metal_gen.rank(model, query="who?", documents=["a fox", "an owl"], top=1)
    assert ranking.method == "likelihood"
    [best] = ranking.items
    asked = f"Passage: {best.text}\nPlease write a question based on this passage."
    assert best.score == pytest.approx(
        metal_gen.score(model, "who?", prompt=asked).logprob_per_token, abs=1e-5
    )


ANSWERED = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("task", "part"),
    [
        ({"prompt": "a", "choices": []}, "there are no choices"),
        ({"prompt": "a", "choices": ["b", ""]}, "choice 2 is empty"),
        ({"prompt": "", "choices": ["b"]}, "the prompt is empty"),
        ({"query": "a", "documents": []}, "there are no documents"),
        ({"query": "a", "documents": [""]}, "document 1 is empty"),
        ({"query": "", "documents": ["b"]}, "the query is empty"),
        ({"query": "a", "choices": ["b"]}, "choices and query cannot be given together"),
        ({"prompt": "a", "choices": ["b"], "query": "c"}, "prompt, choices and query cannot be given"),
        ({}, "there must be a prompt and choices, or a query and documents"),
        ({"prompt": "a"}, "there are no choices for the prompt"),
        ({"choices": ["a"]}, "there is no prompt for the choices"),
        ({"query": "a"}, "there are no documents for the query"),
        ({"prompt": "a", "choices": ["b"], "by": "luck"}, "there is no method 'luck'"),
        ({"prompt": "a", "choices": "yes"}, "choices must be a list of texts, not str"),
        ({"prompt": "a", "choices": 3}, "choices must be a list of texts, not int"),
        ({"prompt": "a", "choices": ["b", 3]}, "choice 2 must be a text, not int"),
        ({"query": 3, "documents": ["b"]}, "the query must be a text, not int"),
        ({"query": "a", "documents": ["b"], "instruction": 5}, "the instruction must be a text, not int"),
        ({"query": "a", "documents": ["b"], "instruction": " "}, "the instruction is empty"),
        ({"prompt": "a", "choices": ["b"], "by": "reranker"}, "by sum or mean"),
        ({"query": "a", "documents": ["b"], "method": "sum"}, "by reranker or likelihood"),
        ({"query": "a", "documents": ["b"], "by": "mean"}, "by has no effect on documents"),
        ({"prompt": ANSWERED, "choices": ["b"]}, "the last message is the assistant's"),
        ({"prompt": {"role": "user"}, "choices": ["b"]}, "must be a text or a list of messages"),
        ({"prompt": "a", "choices": ["b"], "top": 0}, "top must be at least 1"),
    ],
)
def test_what_cannot_be_ranked_is_refused(model, task, part):
    with pytest.raises(UsageError, match=part):
        metal_gen.rank(model, **task)


def test_a_document_that_does_not_fit_is_named(model):
    documents = ["short", "long " * 200]
    with pytest.raises(DoesNotFitError, match=r"query and document 2 have|more than 512 tokens"):
        metal_gen.rank(model, query="a", documents=documents, method="reranker")
    with pytest.raises(DoesNotFitError, match="document 2: the prompt of 20"):
        metal_gen.rank(model, query="a", documents=["b", "long " * 4000])
    with pytest.raises(DoesNotFitError, match="the choice 2 of 20,000 characters"):
        metal_gen.rank(model, prompt="a", choices=["b", "long " * 4000])


def test_a_model_without_yes_and_no_is_no_reranker(speaker):
    with pytest.raises(UsageError, match="no tokens 'yes' and 'no'"):
        metal_gen.rank(metal_gen.load(speaker), query="a", documents=["b"], method="reranker")


def test_after_a_score_the_model_generates_as_before(model):
    before = metal_gen.generate(model, "a", max_tokens=5).token_ids
    metal_gen.score(model, "abcdef" * 20)
    assert metal_gen.generate(model, "a", max_tokens=5).token_ids == before


def test_choices_may_come_from_a_generator(model):
    choices = ["b", "c d"]
    assert metal_gen.rank(model, prompt="a", choices=(each for each in choices)) == metal_gen.rank(
        model, prompt="a", choices=choices
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": 5}, "the text must be a text or its pieces, not int"),
        ({"text": b"a fox"}, "the text must be a text or its pieces, not bytes"),
        ({"text": "a fox", "stride": True}, "the stride must be a whole number, not True"),
        ({"text": "a fox", "stride": 1.5}, "the stride must be a whole number, not 1.5"),
    ],
    ids=["number", "bytes", "true", "fraction"],
)
def test_what_is_no_text_or_stride_is_refused(model, given, message):
    with pytest.raises(UsageError) as caught:
        metal_gen.score(model, **given)
    assert caught.value.message == message
