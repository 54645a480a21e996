"""Tests a chat: commands, typed and piped messages, interrupts, and transcripts."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import start_cli
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from tiny_text_checkpoint import THINK, write_text_checkpoint

import metal_gen
from metal_gen.cli.chat.commands import (
    COMMANDS,
    SETTABLE,
    EndOfChatError,
    completions,
    is_command,
    message_in,
    run_command,
)
from metal_gen.cli.chat.input import LONGEST_MESSAGE, BareTerminal, piped_messages, terminal
from metal_gen.cli.chat.interrupts import Interrupts
from metal_gen.cli.chat.line_editor import LineEditor, open_history
from metal_gen.cli.chat.loop import heed
from metal_gen.cli.chat.multiline import is_unfinished, without_quotes
from metal_gen.cli.chat.session import ChatSession
from metal_gen.cli.chat.transcript_file import SavedConversation
from metal_gen.cli.main import main
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.text.transcript import read_transcript

pytest_plugins = ("fixtures_text",)

HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


@pytest.fixture(scope="module")
def model(text_checkpoints):
    """A model that repeats abcdefgh, with room for a few turns."""
    folder = write_text_checkpoint(text_checkpoints / "alphabet", says=b"abcdefgh", forever=True)
    return metal_gen.load(folder, max_seq_len=120, max_tokens=6)


@pytest.fixture
def session(model):
    return ChatSession(metal_gen.Conversation(model, seed=1), Console(verbosity=1), Interrupts())


@pytest.fixture
def said(session, capsys):
    """Do something in the chat; return stdout and stderr."""

    def do(*texts):
        capsys.readouterr()
        for text in texts:
            heed(session, text)
        return capsys.readouterr()

    return do


def contents(session):
    return [message["content"] for message in session.conversation.messages]


# Commands


def test_an_answer_goes_to_stdout_and_its_numbers_to_stderr(session, said):
    streams = said("hi")
    assert streams.out == "abcdef"
    assert re.fullmatch(
        r"metal-gen: prompt 20, answer 6 tokens; length \(max_tokens\); [\d.]+ tok/s; cache 25 of 120; "
        r"seed 1, float32\n",
        streams.err,
    )
    assert contents(session) == ["hi", "abcdef"]


def test_undo_and_retry(session, said):
    said("hi", "and?")
    assert "taken back: 'and?'; the conversation has 39 tokens, of 120\n" in said("/undo").err
    assert contents(session) == ["hi", "abcdef"]
    assert said("/retry").out == "abcdef"
    assert session.last.statistics.seed == 3
    assert contents(session) == ["hi", "abcdef"]
    assert "the answer will be the same" in said("/set temperature 0", "/retry").err
    assert "nothing to take back" in said("/undo", "/undo").err
    assert "nothing to answer" in said("/retry").err


def test_system(session, said):
    assert "there is no system message" in said("/system").err
    said("hi", '/system """\nBe brief.\n"""')
    assert contents(session) == ['"""\nBe brief.\n"""', "hi", "abcdef"]
    said("/system Be  long.")
    assert said("/system").err == "Be  long.\n"
    said('/system ""')
    assert contents(session) == ["hi", "abcdef"]


def test_a_setting_is_changed_shown_and_put_back(session, said):
    assert said("/set max_tokens 3").err == "metal-gen: max_tokens = 3 (/set)\n"
    assert said("hi").out == "abc"
    assert said("/set top-k").err == "top_k = not set (default)\n"
    assert len(said("/set").err.splitlines()) == len(SETTABLE)
    assert "max_tokens = 6" in said("/unset max_tokens").err
    assert said("/set stop cd").err == 'metal-gen: stop = ["cd"] (/set)\n'
    assert said("/set thinking off").err == "metal-gen: thinking = false (/set)\n"
    assert session.conversation.settings.stop == ("cd",)
    assert session.conversation.settings.thinking is False


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/set temperature -1", "temperature must be a number of at least 0"),
        ("/set temperature hot", "temperature must be a number .*'hot'"),
        ("/set warmth 1", "a chat has no setting warmth"),
        ("/set max_seq_len 9", "cannot be changed during a chat\nhint: .*--max-seq-len"),
        ("/set samples 2", "a chat has no setting samples"),
        ("/set ban_token nonesuch", "ban_token: "),
        ("/unset warmth", "no setting warmth"),
        ("/forget x", "takes a number of turns: 'x'"),
        ("/forget 3", "cannot forget 3 of 1 turns"),
        ("/save", "needs the name of a file"),
        ("/load", "needs the name of a file"),
        (
            "/retyr",
            "no command /retyr\nhint: did you mean /retry. To send a message that begins with a slash, "
            "type two slashes\n",
        ),
    ],
)
def test_a_failed_command_is_reported_and_changes_nothing(session, said, text, reason):
    said("hi")
    before = session.conversation.settings, list(session.conversation.messages)
    assert re.search(reason, said(text).err)
    assert (session.conversation.settings, session.conversation.messages) == before


def test_stats_and_help_tell_all(session, said):
    assert "turns: 0; the conversation has 0 tokens, of 120" in said("/stats").err
    stats = said("hi", "/stats").err
    assert "turns: 1; the conversation has 39 tokens, of 120" in stats
    assert "last answer: prompt 20, answer 6 tokens; length (max_tokens); first after" in stats
    text = said("/help").err
    assert all(command.usage in text and command.help.split()[0] in text for command in COMMANDS)
    assert set(completions()["/set"]) == set(SETTABLE)


@pytest.mark.parametrize("command", ["/clear", "/new", "/reset"])
def test_a_new_conversation_keeps_the_system_message_and_the_settings(session, said, command):
    said("/system Be brief.", "/set temperature 0.5", "hi")
    _, err = said(command)
    assert "a new conversation: 2 messages dropped; the system message stays" in err
    assert session.conversation.messages == [{"role": "system", "content": "Be brief."}]
    assert session.conversation.settings.temperature == 0.5


@pytest.mark.parametrize("command", ["/quit", "/bye"])
def test_other_names_end_the_chat(session, command):
    with pytest.raises(EndOfChatError):
        heed(session, command)


def test_a_short_name_finds_the_setting(session, said):
    assert "did you mean temperature?" in said("/set tempe 0.5")[1]
    assert "did you mean stop or stop_token?" in said("/set sto x")[1]


def test_set_takes_the_forms_and_names_of_other_programs(session, said):
    said("/set parameter temperature 0.5", "/set parameter repeat_penalty 1.1", "/set system Be brief.")
    said("/set nothink")
    settings = session.conversation.settings
    assert (settings.temperature, settings.repetition_penalty, settings.thinking) == (0.5, 1.1, False)
    assert session.conversation.system == "Be brief."
    assert said("/set think").err == "metal-gen: thinking = true (/set)\n"
    assert said("/set temp 0.7").err == "metal-gen: temperature = 0.7 (/set)\n"
    assert "hint: --max-seq-len N" in said("/set parameter num_ctx 4096").err


def test_an_answer_is_ended_before_its_seed_is_said(model, capsys):
    heard = []
    conversation = metal_gen.Conversation(model, seed=1)
    session = ChatSession(
        conversation,
        Console(),
        Interrupts(),
        end_answer=lambda answer: heard.extend([answer, capsys.readouterr().err]),
    )
    answer = session.say("hi")
    assert heard == [answer, ""]
    assert "seed 1" in capsys.readouterr().err


def test_a_saved_conversation_is_on_disk_after_every_turn(session, said, tmp_path):
    path = tmp_path / "talk.json"
    saved = SavedConversation(session.conversation, path, session.console)
    session = ChatSession(session.conversation, session.console, Interrupts(), saved=saved)
    heed(session, "hi")
    assert read_transcript(path) == session.conversation.messages
    heed(session, "and then?")
    assert len(read_transcript(path)) == 4


@pytest.fixture
def saving(session, tmp_path):
    """A chat with --save talk.json, after one turn."""
    saved = SavedConversation(session.conversation, tmp_path / "talk.json", session.console)
    chat = ChatSession(session.conversation, session.console, Interrupts(), saved=saved)
    heed(chat, "hi")
    return chat


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_new_conversation_leaves_the_saved_one_alone(saving, tmp_path, capsys, system):
    saving.conversation.set_system(system)
    first = read_transcript(tmp_path / "talk.json")
    (tmp_path / "talk-2.json").symlink_to("nowhere")
    heed(saving, "/clear")
    said = capsys.readouterr().err
    assert f"stays in {tmp_path}/talk.json; --save goes on with {tmp_path}/talk-3.json" in said
    heed(saving, "/clear")
    saving.saved.save_at_end()
    assert not (tmp_path / "talk-3.json").exists()
    heed(saving, "other")
    assert read_transcript(tmp_path / "talk.json") == first
    assert read_transcript(tmp_path / "talk-3.json") == saving.conversation.messages
    heed(saving, "/new")
    assert saving.saved.path == tmp_path / "talk-4.json"


def test_a_loaded_conversation_leaves_both_files_alone(saving, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps(HELLO))
    first = read_transcript(tmp_path / "talk.json")
    heed(saving, f"/load {other}")
    heed(saving, "more")
    assert read_transcript(tmp_path / "talk.json") == first
    assert read_transcript(other) == HELLO
    assert len(read_transcript(tmp_path / "talk-2.json")) == 4
    heed(saving, f"/load {tmp_path}/talk.json")
    heed(saving, "more")
    assert read_transcript(tmp_path / "talk.json")[:2] == first
    assert len(read_transcript(tmp_path / "talk.json")) == 4


def test_a_file_that_another_program_has_changed_is_left_alone(saving, tmp_path, capsys):
    path = tmp_path / "talk.json"
    heed(saving, f"/save {path}")
    heed(saving, "more")
    assert read_transcript(path) == saving.conversation.messages
    path.write_text(json.dumps(HELLO))
    heed(saving, f"/save {tmp_path}/other.json")
    capsys.readouterr()
    heed(saving, "and")
    assert f"another program has changed {path}: --save goes on with {tmp_path}/talk-2.json" in (
        capsys.readouterr().err
    )
    heed(saving, "so on")
    assert read_transcript(path) == HELLO
    assert read_transcript(tmp_path / "talk-2.json") == saving.conversation.messages
    (tmp_path / "talk-2.json").unlink()
    saving.saved.save_at_end()
    assert read_transcript(tmp_path / "talk-2.json") == saving.conversation.messages


def test_what_fails_or_comes_before_the_first_turn_changes_no_file(session, tmp_path, capsys):
    saved = SavedConversation(session.conversation, tmp_path / "talk.json", session.console)
    chat = ChatSession(session.conversation, session.console, Interrupts(), saved=saved)
    heed(chat, "/clear")
    assert saved.path == tmp_path / "talk.json"
    heed(chat, "hi")
    heed(chat, "/load none.json")
    assert saved.path == tmp_path / "talk.json"
    heed(chat, "/forget 1")
    assert f"takes them out of {saved.path} too; /load {saved.path} brings" in capsys.readouterr().err


def test_a_turn_that_cannot_be_saved_is_reported_once(session, said, tmp_path, capsys):
    path = tmp_path / "gone" / "talk.json"
    saved = SavedConversation(session.conversation, path, session.console)
    heed(session, "hi")
    capsys.readouterr()
    saved.save_turn()
    saved.save_turn()
    assert capsys.readouterr().err.count("this turn is not saved yet") == 1
    with pytest.raises(UsageError):
        saved.save_at_end()


def test_thinking_without_an_answer_is_reported(text_checkpoints, capsys):
    says = [THINK, *b"abcdefghijklmno"]
    folder = write_text_checkpoint(text_checkpoints / "endless_brooder", says=says)
    conversation = metal_gen.Conversation(metal_gen.load(folder, max_seq_len=100, max_tokens=9), seed=1)
    heed(ChatSession(conversation, Console(), Interrupts()), "why?")
    _, err = capsys.readouterr()
    assert "there is no answer: the text ended while the model was thinking" in err
    assert "/set thinking false" in err


def test_a_transcript_is_for_its_owner_alone(session, said, tmp_path):
    path = tmp_path / "talk.json"
    said("hi", f"/save {path}")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_transcript_goes_to_no_pipe(session, said, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    said("hi")
    # It does not wait for a reader either.
    assert "is not a file" in said(f"/save {tmp_path / 'pipe'}")[1]


def test_the_end_comes_by_command(session):
    with pytest.raises(EndOfChatError):
        heed(session, "/exit")


def test_two_slashes_begin_a_message_with_one(session, said):
    assert [is_command(text) for text in ("/etc", "//etc", "an /undo")] == [True, False, False]
    assert message_in("//etc") == "/etc"
    said("//etc")
    assert contents(session)[0] == "/etc"
    with pytest.raises(UsageError):
        run_command(session, "/etc")


# A full cache


def test_a_full_cache_is_reported_with_the_choices_and_nothing_is_dropped(session, said):
    said("hi", "/set max_tokens 1000")
    streams = said("more")
    assert (
        "the answer ends here because the cache is full: max_seq_len is 120\nhint: /undo takes" in streams.err
    )
    assert len(streams.out) == 70
    before = contents(session)
    streams = said("hi")
    assert (streams.out, contents(session)) == ("", before)
    assert "conversation is full: with this message it has 144 tokens, and max_seq_len is 120" in streams.err
    assert "/forget drops the oldest" in streams.err
    trained = session.conversation.model.plan.model.context_length
    assert f"--load FILE --max-seq-len {min(2 * 144, trained)}" in streams.err
    assert "the oldest turn is forgotten; the conversation has 105 tokens" in said("/forget").err
    assert contents(session) == before[2:]
    assert said("/forget", "/set max_tokens 4", "hi").out == "abcd"


# Interrupts


class InterruptedConsole(Console):
    """A console that presses Ctrl-C at some pieces of an answer."""

    pressed_at = (3,)

    def write_text(self, text):
        super().write_text(text)
        self.count = getattr(self, "count", 0) + 1
        if self.count in self.pressed_at:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stops_the_answer_and_keeps_it(session, said, capsys):
    with Interrupts() as interrupts:
        stopped = ChatSession(session.conversation, InterruptedConsole(), interrupts)
        stopped.say("hi")
        streams = capsys.readouterr()
        assert (streams.out, contents(session)) == ("abc", ["hi", "abc"])
        assert "stopped; the answer so far is kept: /undo" in streams.err
        stopped.say("and?")
    assert contents(session)[2:] == ["and?", "abcdef"]


def test_ctrl_c_stops_the_reading_of_a_message_too(text_checkpoints, capsys):
    model = metal_gen.load(text_checkpoints / "alphabet", max_seq_len=120, max_tokens=6, chunk_size=8)
    conversation = metal_gen.Conversation(model, HELLO)
    with Interrupts() as interrupts:
        session = ChatSession(conversation, Console(), interrupts)
        begun = conversation.ask

        def ask(text, on_prefill):
            signal.raise_signal(signal.SIGINT)
            return begun(text, on_prefill=on_prefill)

        conversation.ask = ask
        assert session.say("x" * 30) == ""
    assert conversation.messages == HELLO
    assert "stopped before the answer began" in capsys.readouterr().err


def test_a_second_ctrl_c_does_what_it_did_before(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("before"))
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert (interrupts.requested, heard) == (True, [])
            signal.raise_signal(signal.SIGINT)
            assert heard == ["before"]
            interrupts.begin_answer()
            signal.raise_signal(signal.SIGINT)
            assert heard == ["before"]
            with pytest.raises(KeyboardInterrupt), interrupts.reading():
                signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert heard == ["before"] * 2
    finally:
        signal.signal(signal.SIGINT, before)


# Transcripts


def test_a_transcript_is_saved_and_loaded(session, said, tmp_path):
    path = tmp_path / "talk.json"
    said("hi", f"/save {path}")
    assert json.loads(path.read_text()) == {"messages": session.conversation.messages}
    saved = list(session.conversation.messages)
    said("more", f"/save {path}")
    assert len(read_transcript(path)) == 4
    path.write_text(json.dumps({"title": "x", "messages": saved}))
    assert (
        "2 messages: the conversation has 39 tokens, of 120; the 4 messages before"
        in said(f"/load {path}").err
    )
    assert session.conversation.messages == saved
    path.write_text(json.dumps(saved))
    assert read_transcript(path) == saved


def test_nothing_but_a_transcript_is_replaced(session, said, tmp_path):
    path = tmp_path / "notes.txt"
    assert "nothing to save" in said(f"/save {path}").err
    path.write_text("important")
    assert "would replace a file that is not a transcript" in said("hi", f"/save {path}").err
    assert path.read_text() == "important"
    assert "cannot be written" in said(f"/save {tmp_path}/none/x.json").err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8: byte 0 is 0xff"),
        (b"[" * 100_000, "nested deeper than"),
        (b"{}", "messages must be a list"),
        (b"[]", "the list messages is empty"),
        (b'[{"role": "user"}]', "message 1 of messages must have a content"),
        (b'[{"role": "usr", "content": ""}]', "has the role 'usr'\\S* did you mean user"),
        (b'[{"role": "user", "content": "\\ud800"}]', "unpaired surrogate"),
    ],
)
def test_a_damaged_transcript_is_refused_and_the_conversation_stays(session, said, tmp_path, text, reason):
    path = tmp_path / "damaged.json"
    if text is not None:
        path.write_bytes(text)
    said("hi")
    assert re.search(reason, said(f"/load {path}").err)
    assert contents(session) == ["hi", "abcdef"]


def test_messages_that_the_template_refuses_are_not_loaded(text_checkpoints, echo, tmp_path, capsys):
    (tmp_path / "talk.json").write_text(json.dumps(HELLO))
    session = ChatSession(metal_gen.Conversation(metal_gen.load(echo)), Console(), Interrupts())
    heed(session, f"/load {tmp_path}/talk.json")
    assert session.conversation.messages == []
    streams = capsys.readouterr()
    assert "the chat template refused the messages" in streams.err
    assert "--raw" not in streams.err


# Typed input


@pytest.mark.parametrize(
    ("text", "unfinished", "message"),
    [
        ("hi", False, "hi"),
        ('"""', True, '"""'),
        ('"""a\nb', True, '"""a\nb'),
        ('"""\na\n\nb\n"""', False, "a\n\nb"),
        ('"""a"""', False, "a"),
        ('"""a""', True, '"""a""'),
        ('/system """\nBe\nbrief."""', False, "/system Be\nbrief."),
        ('/system """', True, '/system """'),
        ('say """', False, 'say """'),
    ],
)
def test_blocks_of_lines(text, unfinished, message):
    assert is_unfinished(text) is unfinished
    assert without_quotes(text) == message


@pytest.fixture
def typed(tmp_path):
    """Return what the line editor reads when these keys are pressed."""

    def read(keys, history=None):
        with create_pipe_input() as source, create_app_session(input=source):
            source.send_text(keys)
            return LineEditor(history, completions()).read()

    return read


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("hi\r", "hi"),
        ("a\x1b\rb\r", "a\nb"),
        ("a\nb\r", "a\nb"),
        ("a\\\rb\r", "a\nb"),
        ('"""a\rb"""\r', "a\nb"),
        ("\x1b[200~a\rb\x1b[201~\r", "a\nb"),
        ("/und\t\r", "/undo"),
        ("/set tempe\t 0.5\r", "/set temperature 0.5"),
    ],
)
def test_the_line_editor(typed, keys, message):
    assert typed(keys) == message


def test_the_line_editor_ends_and_is_interrupted(typed):
    with pytest.raises(EOFError):
        typed("\x04")
    with pytest.raises(KeyboardInterrupt):
        typed("abc\x03")


def test_what_is_typed_is_kept_for_its_owner_alone(typed, tmp_path):
    path = open_history({"XDG_STATE_HOME": str(tmp_path / "state")})
    assert path == tmp_path / "state" / "metal-gen" / "chat_history"
    assert path.stat().st_mode & 0o777 == 0o600
    assert typed("first\r", path) == "first"
    assert typed("\x1b[A\r", path) == "first"
    path.unlink()
    path.mkdir()
    assert typed("second\r", path) == "second"
    assert open_history({"HOME": str(tmp_path)}) == tmp_path / ".local/state/metal-gen/chat_history"
    assert open_history({}) is None


def test_a_history_that_cannot_be_kept_is_reported(tmp_path, monkeypatch, capsys):
    (tmp_path / "state").write_text("a file")
    for name, value in (("XDG_STATE_HOME", str(tmp_path / "state")), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Console, "stderr_is_terminal", True)
    assert isinstance(terminal(Console(), {}, keeps_history=True), LineEditor)
    assert "messages are not kept" in capsys.readouterr().err
    terminal(Console(), {}, keeps_history=False)
    assert "is not kept" not in capsys.readouterr().err
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(terminal(Console(), {}, keeps_history=True), BareTerminal)


def test_a_bare_terminal_reads_lines(monkeypatch):
    lines = b'hi\r\nabc\\\nd\n"""\nx\n"""\nlast'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    source = BareTerminal()
    assert [source.read() for _ in range(4)] == ["hi", "abc\nd", "x", "last"]
    with pytest.raises(EOFError):
        source.read()


# Piped input


@pytest.mark.parametrize(
    ("data", "mark", "messages"),
    [
        (b"", b"\n", []),
        (b"a\r\n\n  \nb", b"\n", ["a", "b"]),
        (b"a\nb\0c\0", b"\0", ["a\nb", "c"]),
        (b"/undo\n", b"\n", ["/undo"]),
    ],
)
def test_messages_in_a_pipe(data, mark, messages):
    assert list(piped_messages(io.BytesIO(data), mark)) == messages


@pytest.mark.parametrize("mark", [b"\n", b"\0"])
def test_a_message_without_an_end_is_read_no_further_than_it_could_fit(mark):
    class Endless(io.BytesIO):
        taken = 0

        def read1(self, size=-1):
            self.taken += size
            assert self.taken < 2 * LONGEST_MESSAGE, "it is read for ever"
            return super().read1(size) or b"x" * size

    messages = piped_messages(Endless(b"hi" + mark), mark)
    assert next(messages) == "hi"
    with pytest.raises(DoesNotFitError, match="a message on standard input does not fit"):
        next(messages)


def test_a_message_comes_in_any_number_of_pieces():
    class Dripping(io.BytesIO):
        def read1(self, size=-1):
            return super().read1(3)

    data = b"a long message\n\n\nb\r\nthe last"
    assert list(piped_messages(Dripping(data), b"\n")) == ["a long message", "b", "the last"]


def test_a_message_that_is_not_utf_8_is_named():
    messages = piped_messages(io.BytesIO(b"a\nb\xff\n"), b"\n")
    assert next(messages) == "a"
    with pytest.raises(UsageError, match="message 2 on standard input is not UTF-8: byte 1 is 0xff"):
        next(messages)


def run_main(monkeypatch, capsysbinary, stdin, *arguments):
    source = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin))
    monkeypatch.setattr(sys, "stdin", source)
    code = main(["chat", *arguments])
    streams = capsysbinary.readouterr()
    return code, streams.out, streams.err.decode()


def test_a_pipe_gets_an_answer_for_each_message(text_checkpoints, model, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder, talk = str(text_checkpoints / "alphabet"), tmp_path / "talk.json"
    arguments = ("--model", folder, "-n", "4", "--save", str(talk), "--max-seq-len", "256")
    code, out, err = run_main(
        monkeypatch, capsysbinary, b"hi\n/undo\n/exit\n", *arguments, "--system", "Be brief."
    )
    assert (code, out) == (0, b"abcd\nabcd\nabcd\n")
    ends = r"metal-gen: seed \d+, \w+\n"
    warning = "metal-gen: /undo is sent to the model: in a pipe nothing is a command\nhint: .*\n"
    assert re.fullmatch(f"{ends}{warning}{ends}{ends}metal-gen: saved to .*talk.json\n", err)
    messages = read_transcript(talk)
    assert [message["content"] for message in messages] == [
        "Be brief.",
        "hi",
        "abcd",
        "/undo",
        "abcd",
        "/exit",
        "abcd",
    ]
    more = ("--load", str(talk), "-0", "-q", "--system", "Be long.")
    code, out, err = run_main(monkeypatch, capsysbinary, b"a\nb\0c", *arguments, *more)
    assert (code, out, err) == (0, b"abcd\0abcd\0", "")
    assert [message["content"] for message in read_transcript(talk)][:2] == ["Be long.", "hi"]
    assert len(read_transcript(talk)) == 11


def test_a_new_chat_does_not_replace_a_saved_one(
    text_checkpoints, model, tmp_path, monkeypatch, capsysbinary
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = ("--model", str(text_checkpoints / "alphabet"), "-n", "4", "--max-seq-len", "256", "-q")
    assert run_main(monkeypatch, capsysbinary, b"hi", *arguments, "--save", "talk.json")[0] == 0
    assert run_main(monkeypatch, capsysbinary, b"hi", *arguments, "--save", "other.json")[0] == 0
    before = Path("talk.json").read_bytes()
    for more, hint in (((), "--load talk.json --save talk.json"), (("--load", "other.json"), "remove it")):
        code, _, err = run_main(monkeypatch, capsysbinary, b"new", *arguments, "--save", "talk.json", *more)
        assert (code, Path("talk.json").read_bytes()) == (2, before)
        assert f"would replace the conversation in it\nhint: {hint}" in err
    Path("link.json").symlink_to("talk.json")
    same = ("--save", "talk.json", "--load", "link.json")
    assert run_main(monkeypatch, capsysbinary, b"new", *arguments, *same)[0] == 0
    assert len(read_transcript(Path("talk.json"))) == 4


def test_thinking_can_be_hidden_and_log_probabilities_are_not_told(
    thinker, tmp_path, monkeypatch, capsysbinary
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("METAL_GEN_LOGPROBS", "1")
    code, out, shown = run_main(monkeypatch, capsysbinary, b"hi", "--model", thinker, "--markdown")
    _, _, hidden = run_main(monkeypatch, capsysbinary, b"hi", "--model", thinker, "--hide-thinking")
    assert (code, out) == (0, b"42\n")
    assert shown.startswith("Thinking...\nhm \u241b.\n...done thinking.\nmetal-gen: seed ")
    assert hidden.startswith("metal-gen: seed ")


def test_exit_codes(text_checkpoints, model, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = str(text_checkpoints / "alphabet")
    bare = str(write_text_checkpoint(text_checkpoints / "bare", chat_template=None))
    (tmp_path / "notes").write_text("no transcript")
    cases = [
        (None, (), 2, "standard input is closed"),
        (b"hi", ("--load", str(tmp_path / "none")), 2, "cannot read the transcript"),
        (b"hi", ("--save", str(tmp_path / "notes")), 2, "would replace a file"),
        (b"hi", ("--model", bare), 2, "needs a chat template"),
        (b"x" * 50, ("--model", folder, "--max-seq-len", "40"), 6, "the conversation is full.*\nhint: raise"),
        (b"\xff", ("--model", folder), 2, "message 1 on standard input is not UTF-8"),
    ]
    for stdin, arguments, expected, reason in cases:
        code, out, err = run_main(monkeypatch, capsysbinary, stdin, *arguments)
        assert (code, out) == (expected, b"")
        assert re.search(reason, err)


def test_a_program_can_talk_through_pipes_and_end_the_chat_by_a_signal(babbler, tmp_path):
    """Each answer arrives before the next message is written, and the conversation is saved at the end."""
    options = ("--model", babbler, "-n", "100000", "--max-seq-len", "20000", "-0")
    with start_cli("chat", *options, "--save", "talk.json", home=tmp_path, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"one\0")
        process.stdin.flush()
        # Reads what is available, and buffers nothing.
        begun = os.read(process.stdout.fileno(), 30)
        process.send_signal(signal.SIGTERM)
        rest, stderr = process.communicate(timeout=30)
    assert process.returncode == 143
    messages = read_transcript(tmp_path / "talk.json")
    assert [message["role"] for message in messages] == ["user", "assistant"]
    written = (begun + rest).decode()
    # The signal may arrive between a token and its output.
    assert messages[1]["content"] in (written, written + "abcdefgh\n"[len(written) % 9])
    assert stderr.decode().endswith("metal-gen: saved to talk.json\nmetal-gen: terminated\n")
