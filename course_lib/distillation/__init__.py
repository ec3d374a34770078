"""Knowledge distillation: a small model learns from a large one.

What you may see of the teacher decides which file serves you:

- white box, its modules and their outputs: ``hints``, ``attention``;
- gray box, its logits: ``hinton``, ``teachers``;
- black box, its answers alone: ``black_box``.
"""
