"""Linear attention: gated delta nets, as in Qwen3-Next and Qwen3.5."""
