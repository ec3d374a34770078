"""Knowledge distillation: a small model learns from a large one.

What you may see of the teacher decides which file serves you:

- white box, its parameters and inner features: ``features``;
- gray box, its logits: ``hinton``, ``teachers``;
- black box, its answers alone: ``teachers.answers`` turns them into labels.
"""
