"""The windows and the notebook panel for recording and reviewing."""
