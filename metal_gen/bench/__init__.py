"""The measurements of `metal-gen bench`, one file per subject. Returns figures, prints nothing."""
