"""Checks that every text under a schema is a document that fits it, as the package jsonschema sees it.

Run from the repository's root: `python -m scripts.check_constraints --texts 2000`. Rows of a batch ask for
documents of some sixty schemas, at a temperature at which a model writes nonsense. `--suite FOLDER` adds the
schemas of a JSON-Schema-Test-Suite (its required part, draft 2020-12) that a constraint can keep to.
`--folder FOLDER` keeps the rows and records there, and goes on with them if it was interrupted; what follows
`--` goes to `metal-gen batch`.

Prints how many texts are complete, how many of these fit, and what does not. Exit code 1 if one does not fit.
"""

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema

from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.usable import require_text
from metal_gen.errors import UsageError
from scripts.constraint_schemas import SCHEMAS

Schema = Any
FAILED_ROWS = 7
UNCHECKED = "a pattern that Python does not know"


def usable(schemas: list[Schema]) -> tuple[list[Schema], Counter[str]]:
    """Return the schemas that can be kept to, and how often each reason for refusing others came."""
    kept, refused = [], Counter[str]()
    for schema in schemas:
        try:
            if not isinstance(schema, dict):
                raise UsageError("true or false alone")
            require_text(Constraint.schema(schema), {})
            kept.append(schema)
        except UsageError as error:
            refused[error.message[:90]] += 1
    return kept, refused


def suite_schemas(folder: Path) -> Iterator[Schema]:
    """Yield the schemas of the required tests of draft 2020-12."""
    for path in sorted((folder / "tests" / "draft2020-12").glob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            yield group["schema"]


def misfit(schema: Schema, text: str) -> str | None:
    """Return why a text is not a document that fits a schema; None if it is.

    `UNCHECKED` where Python cannot read a pattern of the schema, such as one with a Unicode class.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        return f"not JSON: {error}"
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    errors = jsonschema.Draft202012Validator(schema, format_checker=checker).iter_errors(document)
    try:
        return next((error.message for error in errors), None)
    except re.error:
        return UNCHECKED


def run_batch(rows: list[dict[str, Any]], folder: Path, arguments: list[str]) -> list[dict[str, Any]]:
    """Run rows through `metal-gen batch`, or go on with them; return the records in their order."""
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "metal_gen", "batch", "in.jsonl", "-o", "out.jsonl", "--ordered"]
    command += ["--resume"] if (folder / "out.jsonl").exists() else []
    done = subprocess.run([*command, *arguments], cwd=folder, check=False)
    if done.returncode not in (0, FAILED_ROWS):
        raise SystemExit(f"metal-gen batch ended with {done.returncode}")
    return [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def check(
    schemas: list[Schema], texts: int, arguments: list[str], folder: Path
) -> tuple[Counter[str], list[str]]:
    """Generate texts, the schemas in turn, and count which are complete and which of these fit.

    Args:
        schemas: Schemas that a constraint can keep to.
        texts: Number of texts.
        arguments: Arguments of `metal-gen batch`.
        folder: Folder for rows and records, which may be those of an interrupted run.

    Returns:
        Counts of `fits`, `cut`, `unchecked` and `failed`, and a line for each complete text that does not.
    """
    rows = [
        {
            "id": number,
            "prompt": "Tell me a story.",
            "schema": schemas[number % len(schemas)],
            "thinking": False,
        }
        for number in range(texts)
    ]
    counts, wrong = Counter[str](), []
    for row, record in zip(rows, run_batch(rows, folder, arguments), strict=True):
        if record.get("complete") is not True:
            code = record["error"]["code"]
            counts["cut" if code == "incomplete" else "failed"] += 1
            if code != "incomplete":
                wrong.append(f"{json.dumps(row['schema'])}: {record['error']['message']}")
        elif (reason := misfit(row["schema"], record["text"])) == UNCHECKED:
            counts["unchecked"] += 1
        elif reason is not None:
            wrong.append(f"{json.dumps(row['schema'])}: {record['text']}: {reason}")
        else:
            counts["fits"] += 1
    return counts, wrong


def main() -> int:
    """Parse the command line, run, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--model", help="a checkpoint; default: the bundled model")
    parser.add_argument("--suite", type=Path, help="a folder with JSON-Schema-Test-Suite")
    parser.add_argument("--temperature", default="1.5")
    parser.add_argument("--max-tokens", default="300")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--folder", type=Path, help="a folder that stays; default: a temporary one")
    parser.add_argument("more", nargs="*", help="arguments of metal-gen batch, after --")
    options = parser.parse_args()
    schemas, refused = usable([*SCHEMAS, *(suite_schemas(options.suite) if options.suite else ())])
    arguments = ["--temperature", options.temperature, "-n", options.max_tokens, "--seed", options.seed]
    arguments += options.more or ["-q"]
    if options.model:
        arguments += ["--model", str(Path(options.model).resolve())]
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        counts, wrong = check(schemas, options.texts, arguments, folder)
    print(f"{len(schemas)} schemas are used, {refused.total()} are refused:")
    for reason, count in refused.most_common():
        print(f"  {count:4} {reason}")
    seen = ", ".join(f"{counts[name]} {name}" for name in ("fits", "cut", "unchecked"))
    print(f"{options.texts} texts: {seen}, {len(wrong)} wrong")
    for line in wrong:
        print(f"  {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
