<!doctype html><title>Handlens</title>
