"""The training engine.

loss.py           the loss of every training: cross entropy in which all labels count the same
selection.py      trains by the chosen strategy; auto: ridge, then fine-tuning, and the better of both
ridge_strategy.py the strategy ridge: a head in closed form (RidgeTrainer)
fine_tuning.py    the strategy finetune: the last stages of the backbone, too (FineTuner)
strategies.py     trains by any other strategy: which layers, and how fast (StrategyTrainer)
loop.py           the training loop, the history of its epochs and the best weights (Loop, History)
trainer.py        trains any layers, on augmented images (Trainer)
head.py           trains the head alone, on features computed once
loader.py         makes batches of augmented images
optimizer.py      optimizers and learning rate schedules
features.py       computes features with the frozen backbone, once for each image
training_data.py  the images, with the features and foregrounds that are computed from them once
run_folder.py     the folder of a run while it is not finished
context.py        device, processes, progress, saved state and memory limit of a training
resume.py         saves the state of a training, so that it can continue after an interruption
distributed.py    the processes that train together under torchrun
micro_batch.py    smaller chunks when memory runs out
progress.py       progress bar and log of the epochs
"""
