"""One reader for the files in which a model directory describes its tokens.

folder       what the JSON files say: named tokens, tokens with ids, chat templates. Imports nothing but json
end_tokens   which tokens end an answer; for the model worker, so pure as well
reader       the tokenizer that encoder and detokenizer share, and its fingerprint
fields       what the fields of tokenizer_config.json change about a tokenizer.json
added        tokens that another file than tokenizer.json declares
conversion   directories that only `transformers` can read
lean         keeps torch out of a process that reads tokenizers
"""
