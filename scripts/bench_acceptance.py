#!/usr/bin/env python3
"""Counts how many guesses are right, by source, over texts that repeat their prompt more or less.

    python scripts/bench_acceptance.py --model FOLDER --source lookup
    python scripts/bench_acceptance.py --model FOLDER --source draft --draft-model FOLDER --temperature 0.8
    python scripts/bench_acceptance.py --model FOLDER --source mtp --texts copy,story --tokens 100

Each row is a text: its tokens, passes, guesses, those that were right, and tokens for each pass. Counts do
not depend on the speed of the machine, unless depths adapt, as they do on a GPU.
"""

import argparse

import metal_gen
from metal_gen.bench.sections.speculation import WORKLOADS

REPORT = WORKLOADS["summary"].partition("\n\n")[2]
# A prompt that is not put into a chat template: the beginning of a copy tells any model what to do.
CONTINUED = {"copy": f"Repeat this text, word for word:\n\n{REPORT}\n\nThe text again:\n\n{REPORT[:80]}"}
TEXTS = {**WORKLOADS, **CONTINUED}


def main() -> None:
    """Generate the texts, and print a row for each."""
    parser = argparse.ArgumentParser(description="Counts how many guesses are right.")
    parser.add_argument("--model", help="folder or name of the model; default: the bundled one")
    parser.add_argument("--source", choices=["lookup", "mtp", "draft"], default="lookup")
    parser.add_argument("--draft-model", help="folder or name of the draft model")
    parser.add_argument("--draft-tokens", type=int, help="most guesses in a pass")
    parser.add_argument("--texts", default=",".join(TEXTS), help="names of texts: %(default)s")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of each text")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=3)
    wanted = parser.parse_args()
    model = metal_gen.load(
        wanted.model,
        max_seq_len=1024,
        speculate=wanted.source,
        draft_model=wanted.draft_model,
        draft_tokens=wanted.draft_tokens,
    )
    print(f"{'text':10} {'tokens':>6} {'passes':>6} {'guesses':>7} {'right':>5} {'a pass':>6}")
    for name in wanted.texts.split(","):
        made = metal_gen.generate(
            model,
            TEXTS[name],
            raw=name in CONTINUED,
            max_tokens=wanted.tokens,
            temperature=wanted.temperature,
            seed=wanted.seed,
            ignore_eos=True,
        )
        counts = made.statistics.speculation
        assert counts is not None
        print(
            f"{name:10} {counts.tokens:6} {counts.passes:6} {counts.drafted:7} {counts.accepted:5} "
            f"{counts.tokens_per_pass:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
