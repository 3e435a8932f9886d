"""neuflow: an open ConvNet accelerator, its compiler and its simulators."""
