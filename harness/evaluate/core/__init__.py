"""DCLM CORE as the retired board measured it: 22 in-context tasks, 91,037 examples, one number. Definition and sources: docs/core.md."""
