"""Do generated images help a classifier: scores of predictions, comparisons, the answer."""
