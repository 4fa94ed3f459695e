"""The live page: a web server that is a sink of the live loop."""
