.PHONY: check lint test soak bench docs site

check: lint test  ## everything that has to pass before a commit

lint:
	ruff format --check .
	ruff check .
	mypy

test:
	pytest

soak:  ## the long forms, and the same tests with many more drawn examples
	HYPOTHESIS_PROFILE=soak pytest --soak

bench:  ## seconds from the shell prompt to the help, and to the first word of an answer
	python benchmarks/first_word.py

docs:  ## write again what is cut from running code: docs/commands.md, docs/tour.md, docs/answer.png
	python docs/make.py

site:  ## the documentation as a folder of pages: build/site
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
