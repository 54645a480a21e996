"""Formats sizes in bytes for people."""

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40


def format_bytes(count: int) -> str:
    """Format a size in the largest unit that gives at least 1: `24.0 MiB`, `1.20 GiB`."""
    if count >= TIB:
        return f"{count / TIB:,.2f} TiB"
    if count >= GIB:
        return f"{count / GIB:.2f} GiB"
    if count >= MIB:
        return f"{count / MIB:.1f} MiB"
    return f"{count / KIB:.1f} KiB" if count >= KIB else f"{count} B"
