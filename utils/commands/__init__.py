"""What a command line is made of besides its parser (`utils.cli`): values of flags, standard streams, signals."""
