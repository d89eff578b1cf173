"""TorchServe: the handler inside it, the archive it loads, and the process that runs it."""
