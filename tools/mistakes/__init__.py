"""The mistakes that `tools/prove-harness` makes."""
