"""Raises the limit on open files, 256 on a Mac by default, for large checkpoints."""

import resource

from metal_gen.errors import ConfigError

# Open files of Python, MLX, the tokenizer and pipes.
OTHERS = 64


def allow_open_files(count: int) -> None:
    """Raise this process's own limit if it is too low for `count` files at once.

    Raises:
        ConfigError: The system's limit is too low as well.
    """
    wanted = count + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ConfigError(
            f"{count} files must be open at once, and this process may open {hard}",
            "ask an administrator to raise the hard limit, which `ulimit -Hn` shows",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
