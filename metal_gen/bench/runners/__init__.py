"""The programs that are measured, behind one interface."""
