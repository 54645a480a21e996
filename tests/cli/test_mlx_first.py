"""What has to be set before MLX is imported is set before: the BLAS on Linux, command buffers on a Mac."""

import json
import subprocess
import sys

COMMANDS = (
    ["generate", "hi"],
    ["chat"],
    ["batch", "rows.jsonl", "-o", "out.jsonl"],
    ["score", "text.txt"],
    ["score", "--jsonl", "rows.jsonl", "-o", "out.jsonl"],
    ["rank", "--query", "fox", "--document", "a fox"],
    ["rank", "--prompt", "A fox", "--choice", "ran"],
    ["rank", "--jsonl", "rows.jsonl", "-o", "out.jsonl"],
    ["plan"],
    ["bench", "--only", "decode"],
    ["info"],
)
# Each command ends where it asks for MLX. None is imported until then.
PROGRAM = """
import json, sys
from metal_gen.cli.main import main
from metal_gen.device import backend

class Asked(BaseException):
    pass

def require_mlx(*arguments):
    raise Asked

backend.require_mlx = require_mlx
outcomes = []
for command in json.loads(sys.argv[1]):
    try:
        outcomes.append(f"ended with {main(command)}")
    except Asked:
        outcomes.append("imported" if "mlx.core" in sys.modules else "asked")
print(json.dumps(outcomes))
"""


def test_no_command_imports_mlx_before_it_asks_for_it(tmp_path):
    (tmp_path / "text.txt").write_text("A fox ran.")
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "text": "A fox ran."}\n')
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(COMMANDS)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert dict(zip(map(str, COMMANDS), outcomes, strict=True)) == dict.fromkeys(map(str, COMMANDS), "asked")
