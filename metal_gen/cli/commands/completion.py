"""`metal-gen completion`: prints the script with which a shell completes commands, options and models."""

from typing import Annotated

import typer

from metal_gen.cli.completion import SHELLS
from metal_gen.cli.main import COMPLETION_VARIABLE
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import UsageError

# Shown at the end of the help.
EXAMPLES = (
    "source <(metal-gen completion bash)",
    "metal-gen completion zsh > ~/.zfunc/_metal-gen",
    "metal-gen completion fish | source",
)


def completion(
    shell: Annotated[
        str,
        typer.Argument(
            metavar="SHELL",
            help="Name the shell: bash, zsh or fish",
            autocompletion=lambda incomplete: [name for name in SHELLS if name.startswith(incomplete)],
        ),
    ],
) -> None:
    """Print the completion script of a shell; `metal-gen --install-completion` installs it for you.

    zsh reads ~/.zfunc if ~/.zshrc has `fpath+=~/.zfunc` before `compinit`.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # re-exported anyway

    if shell not in SHELLS:
        raise UsageError(f"there is no completion script for {shell[:40]!a}", f"choose {', '.join(SHELLS)}")
    console = Console()
    console.require_stdout()
    script = get_completion_script(prog_name="metal-gen", complete_var=COMPLETION_VARIABLE, shell=shell)
    console.write_text(script + "\n")
