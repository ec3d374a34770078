"""The papers' tables, re-run: ``python -m reproduce`` runs what is missing and writes docs/results.md."""
