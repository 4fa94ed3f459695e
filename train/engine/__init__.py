"""The training engine.

strategies/       a class for each way to train: the layers, how fast, and what it is evaluated on
training_data.py  what a strategy trains on: the images, and the network to start from (TrainingData)
result.py         what it returns: the trained network, and how it did on images that it never saw (Result)
loop.py           the training loop, the history of its epochs and the best weights (Loop, History)
loss.py           the loss of every training: cross entropy in which all labels count the same
trainer.py        trains any layers, on augmented images (Trainer)
head.py           trains the head alone, on features computed once
optimizer.py      optimizers and learning rate schedules
features.py       computes features with the frozen backbone, once for each image
run_folder.py     the folder of a run while it is not finished
context.py        device, processes, progress, saved state and memory limit of a training
resume.py         saves the state of a training, so that it can continue after an interruption
distributed.py    the processes that train together under torchrun
micro_batch.py    smaller chunks when memory runs out
progress.py       progress bar and log of the epochs
"""
