"""How good, how varied and how copied generated images are: features, metrics, memorisation."""
