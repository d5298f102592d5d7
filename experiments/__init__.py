"""One click command an experiment: `python -m experiments.NAME --data ... --out ...`."""
