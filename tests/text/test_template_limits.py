"""Tests that any chat template ends in bounded memory, and that ordinary ones are unaffected."""

import pytest

from metal_gen.errors import CheckpointError
from metal_gen.text.chat_template import ChatTemplate, MessagesRefusedError
from metal_gen.text.template import limits, sandbox

HELLO = [{"role": "user", "content": "hi"}]
TWICE = "{% for i in range(99999) %}{% for j in range(99999) %}"


def growing(first, following, end="{{ ns.v }}"):
    """Return a template that makes a value from the previous one, ninety-nine times."""
    begin = "{% set ns = namespace(v=" + first + ") %}{% for i in range(99) %}"
    return begin + "{% set ns.v = " + following + " %}{% endfor %}" + end


ENDLESS = {
    "loops": TWICE + "{% endfor %}{% endfor %}",
    "loops whose test is false": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}"
    "{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "filters": "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
    "lazy filters": "{% for i in range(99999) %}{{ range(99999) | select | select | sum }}{% endfor %}",
    "searches": "{% set s = 'a' * 9999999 %}{% for i in range(9999) %}{{ 'b' in s }}{% endfor %}",
    "comparisons": "{% set s = 'a' * 9999999 %}{% set t = 'a' * 9999999 %}" + "{{ s == t }}" * 999,
    "loop lengths": TWICE + "{{ loop.length }}{% endfor %}{% endfor %}",
}
LARGE = {
    "texts": "{{ 'a' * 10**10 }}",
    "texts the other way": "{{ 10**10 * 'a' }}",
    "lists": "{{ ([0] * 10**10) | length }}",
    "numbers": "{{ 10 ** (10**10) }}",
    "products": growing("10", "ns.v * ns.v"),
    "sums": growing("'ab'", "ns.v + ns.v"),
    "tildes": growing("'ab'", "ns.v ~ ns.v"),
    "joins": growing("'ab'", "[ns.v, ns.v] | join"),
    "methods": growing("'ab'", "''.join([ns.v, ns.v])"),
    "replacements": growing("'ab'", "ns.v.replace('a', 'aa')"),
    "replacing filters": growing("'ab'", "ns.v | replace('a', 'aa')"),
    "formats": growing("'ab'", "'{0}{0}'.format(ns.v)"),
    "percents": growing("'ab'", "'%s%s' % (ns.v, ns.v)"),
    "blocks": growing("'ab'", "ns.v")
    + growing("'ab'", "x").replace("{% set ns.v", "{% set x %}{{ ns.v }}{{ ns.v }}{% endset %}{% set ns.v"),
    "list sums": growing("[0]", "ns.v + ns.v"),
    "nested lists": growing("[0]", "[ns.v, ns.v]"),
    "nested tuples": growing("(0,)", "(ns.v, ns.v)", "{{ {ns.v: 1} }}"),
    "nested objects": growing("0", "{'a': ns.v, 'b': ns.v}", "{{ ns.v | tojson }}"),
    "nested dicts": growing("0", "dict(a=ns.v, b=ns.v)"),
    "nested values": growing("0", "{'a': ns.v, 'b': ns.v}.values()"),
    "nested groups": growing("0", "[[1, ns.v], [2, ns.v]] | groupby(0)"),
    "nested defaults": growing("[0]", "['', ''] | map('default', ns.v, true) | list"),
    "repeated lists": "{% set a = [0] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ c }}",
    "widths": "{{ '%10000000000d' % 1 }}",
    "widths that are given": "{{ '%*d' % (10000000000, 1) }}",
    "named widths": "{{ '%((a))10000000000d' % {'(a)': 1} }}",
    "widths of a filter": "{{ '%10000000000d' | format(1) }}",
    "fields": "{{ '{:10000000000}'.format(1) }}",
    "fields in fields": "{{ '{:{}}'.format(1, 10000000000) }}",
    "safe fields": "{{ ('{:10000000000}' | safe).format(1) }}",
    "method widths": "{{ 'a'.ljust(10000000000) }}",
    "methods by name": "{{ ('a' | attr('ljust'))(10000000000) }}",
    "bytes": "{{ (5).to_bytes(10000000000, 'big') }}",
    "indents": "{{ ('a\n' * 9999) | indent('b' * 99999) }}",
    "indented JSON": "{{ [1] | tojson(indent=1000000000) }}",
    "separated JSON": "{{ [1, 2] | tojson(separators=('a' * 9999999, ':')) }}",
    "places": "{{ 1.5 | round(10000000000, 'ceil') }}",
    "sums of lists": "{{ ([[0]] * 99999) | sum(start=[]) }}",
    "marks": "{{ range(99999) | join('b' * 99999) }}",
    "marks of a method": "{{ ('b' * 99999).join('a' * 99999) }}",
    "splits": "{{ ('a ' * 9999999).split() | length }}",
    "letters": "{{ ('é€' * 9999999) | list | length }}",
    "sorted letters": "{{ ('é€' * 9999999) | sort | length }}",
    "text of the template": "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "text in a block": "{% set y %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
    "recursive loops": "{% set d = range(99999) | list %}{% for a in d recursive %}"
    + "x" * 999
    + "{{ loop(d) }}{% endfor %}",
    "dates": "{{ strftime_now('%s' * 9999999) }}",
}
INVALID = {
    "too long": "{{ a }}" * 300_000,
    "loops": "{% for a in b %}" * 25 + "{% endfor %}" * 25,
    "conditions": "{% if a %}" * 110 + "{% endif %}" * 110,
    "break": "{% break %}",
    "an argument twice": "{{ f(a=1, a=2) }}",
    "a parameter twice": "{% macro f(a, a) %}{% endmacro %}",
    "brackets": "{{ " + "(" * 30_000,
    "sums": "{{ 1" + " + 1" * 9000 + " }}",
    "filters": "{{ 1" + "|abs" * 9000 + " }}",
    "attributes": "{{ a" + ".b" * 20_000 + " }}",
    "digits": "{{ " + "9" * 5000 + " }}",
    "hexadecimal digits": "{{ 0x" + "f" * 60_000 + " }}",
    "other templates": "{% include 'a' %}",
    "other templates' blocks": "{% block a %}{% endblock %}",
    "random texts": "{{ [1] | random }}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_endless_templates_are_stopped(source, monkeypatch):
    monkeypatch.setattr(limits, "MOST_SECONDS", 0.05)
    with pytest.raises(MessagesRefusedError, match=r"stopped: it takes more than 0\.05 seconds"):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize("source", LARGE.values(), ids=LARGE)
def test_templates_that_would_fill_the_memory_are_refused(source, monkeypatch):
    """Computing it would kill this process."""
    monkeypatch.setattr(limits, "MOST_BYTES", 2**20)
    with pytest.raises(MessagesRefusedError):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize("source", INVALID.values(), ids=INVALID)
def test_templates_that_cannot_be_compiled_are_refused(source):
    with pytest.raises(CheckpointError, match=r"is not valid: [\w']") as caught:
        ChatTemplate(source)
    assert "--raw" in caught.value.hint


@pytest.mark.parametrize(
    "constant", ["'a' * 10**10", "10 ** 10 ** 10", "'%99999999999d' % 1", "'a' | indent(10**10)"]
)
def test_nothing_is_computed_while_a_template_is_compiled(constant):
    ChatTemplate("{% if false %}{{ " + constant + " }}{% endif %}{% set a = " + constant + " if false %}")


def test_memory_that_runs_out_has_a_reason():
    template = ChatTemplate("{{ f() }}")

    def fail():
        raise MemoryError

    with pytest.raises(MessagesRefusedError, match="it runs out of memory"):
        template.render(HELLO, arguments={"f": fail})


def test_each_rendering_has_its_own_allowance():
    template = ChatTemplate("{{ 'a' * 10000000 }}")
    assert [len(template.render(HELLO)) for _ in range(3)] == [10_000_000] * 3


def test_long_conversations_may_take_more():
    messages = [{"role": "user", "content": "x" * 4000}] * 400
    template = ChatTemplate(
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.content %}{% endfor %}"
        "{{ ns.s }}"
    )
    assert template.render(messages) == "x" * 4000 * 400


def test_ordinary_templates_render_as_in_jinja():
    source = """
    {%- macro say(m, i=0) %}{{ i }}{{ m.role | title }}: {{ m.content | trim }}
    {% endmacro -%}
    {%- set ns = namespace(n=0, l=[]) -%}
    {%- for m in messages if m.role != 'system' -%}
        {%- set ns.n = ns.n + loop.index0 * 2 -%}
        {%- set ns.l = ns.l + [m.role ~ '-' ~ loop.length] -%}
        {{- say(m, i=ns.n) -}}
        {%- if loop.first -%}first {% elif loop.last %}last{% else %}-{% endif -%}
    {%- else -%}none{%- endfor -%}
    |{{ ns.l | join(',') }}|{{ messages[::-1][0].content[1:] }}|{{ {'a': (1, 2)} }}
    {{- '|%s%%%03d' % ('x', 7) }}
    {{- '{}-{:>4}'.format('y', 5) }}|{{ messages | map(attribute='role') | list }}|{{ 7 // 2 }}
    {{- 2 ** 5 }}{{ 7 % 4 }}
    {{- [3, 1, 2] | sort | first }}|{{ 'a\nb' | indent(2) }}|{{ 'a,b'.split(',')[1].replace('b', 'cc') }}
    {{- [[1, 2], [3]] | sum(start=0) if false }}|{{ 2.555 | round(1) }}|{{ 1 < 2 < 3 }}{{ 'b' in 'abc' }}
    {%- for a in [1, [2, [3]]] recursive %}<{{ loop(a) if a is iterable else a }}>{% endfor %}
    """
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": " a "},
        {"role": "tool", "content": "bc"},
    ]
    assert ChatTemplate(source).render(messages) == (
        "0User: a\nfirst 2Tool: bc\nlast|user-2,tool-2|c|{'a': (1, 2)}|x%007y-   5|['system', 'user', 'tool']"
        "|33231|a\n  b|cc|2.6|TrueTrue<1><<2><<3>>>    "
    )


def test_excluded_names_exist_in_jinja():
    """If one is missing, a new version has renamed it, and the new name must be excluded."""
    from jinja2.filters import FILTERS

    assert set(sandbox.LEFT_OUT_FILTERS) | set(sandbox.LISTING_FILTERS) <= FILTERS.keys()
    assert all(hasattr(str, name) or hasattr(int, name) for name in sandbox.LEFT_OUT_METHODS)
