"""Layers with fewer bytes: ``sparse`` (COO, CSR), ``two_four``, ``linear`` (layers over both), ``crossover``."""
