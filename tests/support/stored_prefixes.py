"""Loads models with a prefix cache of their own, and finds what it holds."""

import metal_gen

SYSTEM = "You tell stories about careful animals. " * 8


def load_with_cache(folder, model=None, **settings):
    """Load a model whose prefix cache is in `prefixes` of a folder, and stores one block or more."""
    given = {"prefix_cache": True, "prefix_cache_dir": str(folder / "prefixes"), "chunk_size": 64}
    return metal_gen.load(model, **{**given, "prefix_cache_min_tokens": 64, **settings})


def answer(model, prompt, **settings):
    """Answer greedily, and briefly."""
    given = {"max_tokens": 12, "temperature": 0, "system": SYSTEM, **settings}
    return metal_gen.generate(model, prompt, **given)


def entries(folder):
    """Return the paths of all entries."""
    return sorted((folder / "prefixes").glob("*/*.safetensors"))
