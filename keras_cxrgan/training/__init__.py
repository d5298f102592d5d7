"""Training: losses, the GAN with its one train step, callbacks, saved state, devices."""
