"""The options of a training.

run_config.py     the options of a run: its data, its network, its folder (RunConfig)
train_config.py   the settings of one training, and those of each strategy (TrainConfig, STRATEGIES)
options.py        from a field of these classes to an option of the command line
"""
