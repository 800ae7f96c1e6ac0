"""The files of models: are they here, where do they come from, and what do they say?"""
