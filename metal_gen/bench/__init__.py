"""What `metal-gen bench` measures: one file per subject. Returns figures, prints nothing."""
