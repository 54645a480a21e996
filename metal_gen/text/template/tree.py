"""Inserts checks into a chat template, where Jinja itself makes no call that could be checked."""

from collections.abc import Iterable
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

# Names that no template can use for a filter.
STEP, CHECK, TAKE, TAKE_WHOLE, JOIN = "step in a loop", "check", "take", "take whole", "join texts"


def with_checks(tree: nodes.Template) -> nodes.Template:
    """Return the template with filters around loops, comparisons, slices, lists and `~`."""
    _Checks().visit(tree)
    return tree


class _Checks(NodeTransformer):
    def visit_For(self, node: nodes.For, *args: Any) -> nodes.Node:  # noqa: N802
        step = _filter(STEP, nodes.Const(_nbytes_put_out(node.body)))
        self.generic_visit(node, *args)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(_filter(STEP, nodes.Const(0)), node.test, lineno=node.lineno)
        return node

    def visit_Compare(self, node: nodes.Compare, *args: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node, *args)
        node.expr = _filter(CHECK, node.expr)
        return node

    def visit_Concat(self, node: nodes.Concat, *args: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node, *args)
        return _filter(JOIN, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem, *args: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node, *args)
        return _filter(TAKE, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List, *args: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node, *args)
        return _filter(TAKE_WHOLE, node)

    def visit_Dict(self, node: nodes.Dict, *args: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node, *args)
        return _filter(TAKE_WHOLE, node)

    def visit_Tuple(self, node: nodes.Tuple, *args: Any) -> nodes.Node:  # noqa: N802
        self.generic_visit(node, *args)
        return _filter(TAKE_WHOLE, node) if node.ctx == "load" else node


def _filter(name: str, value: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _nbytes_put_out(body: Iterable[nodes.Node]) -> int:
    """Return the most bytes of its own text that one iteration outputs, not counting inner loops."""
    nbytes = 0
    for node in body:
        if isinstance(node, nodes.TemplateData):
            nbytes += len(node.data)
        elif not isinstance(node, nodes.For):
            nbytes += _nbytes_put_out(node.iter_child_nodes())
    return nbytes
