"""The pipeline's five stages, a module each, and the packages that they are made of."""
