"""The environment of a chat template: what it can access, and the checks on what it does.

Jinja's sandbox keeps a template away from files and from the interpreter. It does not stop it from running
forever or filling the memory. Here, every value that a template makes and every iteration of a loop is
counted, large results are predicted, and features that no chat template needs are removed.
"""

import warnings
from collections.abc import Callable
from functools import update_wrapper, wraps
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from metal_gen.text.template.growth import CAREFUL_FILTERS, foresee_method, foresee_operator, formatter_for
from metal_gen.text.template.limits import VALUE_BYTES, Allowance
from metal_gen.text.template.tree import CHECK, JOIN, STEP, TAKE, TAKE_WHOLE, with_checks

# Twice the longest published template. Compiling ten times as much can take minutes.
LONGEST_SOURCE = 2**16
# These pad numbers to a width, split values into lists of a given length, or draw at random.
LEFT_OUT_FILTERS = ("batch", "center", "pprint", "random", "slice", "urlize", "wordwrap", "xmlattr")
LEFT_OUT_METHODS = frozenset(
    "center encode expandtabs format_map from_bytes ljust maketrans rjust to_bytes translate zfill".split()
)
# These go through all characters of a text, or make a list of them.
LISTING_FILTERS = ("groupby", "join", "list", "max", "min", "sort", "title", "unique", "urlencode")
FOREIGN = (nodes.Block, nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates, and checks one rendering at a time.

    Attributes:
        allowance: Allowance of the current rendering.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _GenerationTag],
            # Compute nothing while a template is compiled.
            optimized=False,
        )
        self.finalize = self._shown
        self.allowance = Allowance()
        self.globals["namespace"] = _Namespace
        del self.globals["lipsum"]
        filters: dict[str, Any] = {
            name: self.filters[name] for name in self.filters.keys() - set(LEFT_OUT_FILTERS)
        }
        filters |= CAREFUL_FILTERS
        self.filters = {name: self._watched(each, name) for name, each in filters.items()}
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: self._watched(each) for name, each in tests.items()}
        self.filters |= {STEP: self._step, CHECK: self._checked, JOIN: self._joined}
        self.filters |= {TAKE: self._taken, TAKE_WHOLE: self._taken_whole}

    def read(self, source: str) -> tuple[Template, set[str]]:
        """Compile a template.

        Returns:
            The template, and the names of its variables.

        Raises:
            TemplateError: It is not valid, is too long, or needs other templates. Jinja also lets errors of
                Python's own compiler through.
        """
        if len(source) > LONGEST_SOURCE:
            raise TemplateSyntaxError(f"it has more than {LONGEST_SOURCE:,} characters", 1)
        tree = self.parse(source)
        for foreign in tree.find_all(FOREIGN):
            tag = type(foreign).__name__.lower()
            raise TemplateSyntaxError(f"it has the tag {tag!r}, which needs other templates", foreign.lineno)
        names = {node.name for node in tree.find_all(nodes.Name)}
        with warnings.catch_warnings():
            # Python's compiler warns about some of the code that Jinja generates, on stderr.
            warnings.simplefilter("ignore")
            code = self.compile(with_checks(tree))
        return self.template_class.from_code(self, code, self.make_globals(None)), names

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Exclude methods that make a text of any length."""
        if isinstance(obj, str | int) and attr in LEFT_OUT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up an item after checking the time."""
        self.allowance.check()
        return super().getitem(obj, argument)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or a function, and count its result."""
        self.allowance.check()
        if isinstance(function, BuiltinMethodType | MethodType) and isinstance(function.__self__, str):
            args = foresee_method(function.__self__, function.__name__, args, self.allowance)
        return self.allowance.take_whole(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute the result of an operator, and count it."""
        foresee_operator(operator, left, right, self.allowance)
        return self.allowance.take_whole(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Keep `str.format` in the sandbox too."""
        if super().wrap_str_format(value) is None or value.__name__ != "format":
            return None
        text = value.__self__
        formatter = formatter_for(self, text)

        def format_text(*args: Any, **kwargs: Any) -> str:
            return str(type(text)(formatter.vformat(text, args, kwargs)))

        return update_wrapper(format_text, value)

    @pass_context
    def _shown(self, context: Context, value: Any) -> str:
        """Return the text of an output value. Without a context argument, Jinja would call this at once."""
        text = value if isinstance(value, str) else str(value)
        self.allowance.charge(len(text))
        return text

    def _step(self, nbytes: int) -> bool:
        """Begin an iteration of a loop that outputs `nbytes` of the template's own text."""
        self.allowance.charge(nbytes)
        return True

    def _checked(self, value: Any) -> Any:
        self.allowance.check()
        return value

    def _taken(self, value: Any) -> Any:
        return self.allowance.take(value)

    def _taken_whole(self, value: Any) -> Any:
        return self.allowance.take_whole(value)

    def _joined(self, values: list[Any]) -> Any:
        texts = [str(value) for value in values]
        self.allowance.reserve(sum(map(len, texts)))
        return self.allowance.take("".join(texts))

    def _watched(self, function: Callable[..., Any], name: str = "") -> Callable[..., Any]:
        """Wrap a filter or a test to count its result."""

        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.allowance.check()
            if name in LISTING_FILTERS:
                lengths = (len(text) for text in args if isinstance(text, str))
                self.allowance.reserve(VALUE_BYTES * max(lengths, default=0))
            return self.allowance.take_whole(function(*args, **kwargs))

        return watched


class _Namespace(Namespace):
    """Jinja's namespace, shown without its values; as in transformers, no name begins with `_`."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *given = args
        attributes = dict(*given, **kwargs)
        for name in attributes:
            _require_open(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_open(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


def _require_open(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError("a name in a namespace begins with _")


class _GenerationTag(Extension):
    """Ignores `{% generation %}`, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=lineno)
