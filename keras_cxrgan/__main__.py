"""`python -m keras_cxrgan` is the `cxrgan` command."""

from keras_cxrgan.cli import main

main(prog_name="cxrgan")
