"""Parts of a command line besides its parser (`utils.cli`): values of flags, standard streams, signals, `torchrun`."""
