"""Checkpoints for tests of the command line, each written once."""

import json

import pytest
from tiny_text_checkpoint import (
    CHATML,
    CYCLE,
    ECHO_TEMPLATE,
    END_THINK,
    SAID,
    TEXT_VOCAB,
    THINK,
    byte_tokenizer,
    write_text_checkpoint,
)
from tokenizers import AddedToken

from metal_gen.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def text_checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def speaker(text_checkpoints):
    """A model that says `SAID` and stops."""
    return str(write_text_checkpoint(text_checkpoints / "speaker", says=SAID.encode()))


@pytest.fixture(scope="session")
def babbler(text_checkpoints):
    """A model that says `CYCLE` again and again, until the cache is full."""
    return str(write_text_checkpoint(text_checkpoints / "babbler", says=CYCLE, forever=True))


@pytest.fixture(scope="session")
def thinker(text_checkpoints):
    """A model that thinks `hm ESC.` and answers 42."""
    says = [THINK, *b"hm \x1b.", END_THINK, *b"\n42"]
    return str(write_text_checkpoint(text_checkpoints / "thinker", says=says))


@pytest.fixture(scope="session")
def brooder(text_checkpoints):
    """A model whose template opens thinking: it thinks `abcd`, and answers 42 from the sixth token on."""
    template = CHATML + "<think>\n"
    says = [*b"abcd", END_THINK, *b"42"]
    return str(write_text_checkpoint(text_checkpoints / "brooder", says=says, chat_template=template))


@pytest.fixture(scope="session")
def gambler(text_checkpoints):
    """A model with random weights, whose text depends on the seed."""
    return str(write_text_checkpoint(text_checkpoints / "gambler"))


@pytest.fixture(scope="session")
def echo(text_checkpoints):
    """A model whose template refuses every prompt, and quotes it as JSON."""
    folder = text_checkpoints / "echo"
    return str(write_text_checkpoint(folder, chat_template=ECHO_TEMPLATE))


@pytest.fixture
def open_tokenizer(tmp_path):
    """Open the byte-level tokenizer, with changes to its document."""

    def open_it(change=lambda document: None, *, added=(), vocab_size=TEXT_VOCAB + 20):
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
        document = json.loads(tokenizer.to_str())
        change(document)
        (tmp_path / "tokenizer.json").write_text(json.dumps(document))
        return Tokenizer(tmp_path, vocab_size)

    return open_it
