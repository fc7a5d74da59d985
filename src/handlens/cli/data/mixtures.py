"""``handlens data mixtures``: the paper's data, and what stands for it here."""

import json

import click


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one object, or a list of all.")
def mixtures(name: str | None, as_json: bool) -> None:
    """List the paper's data, and what stands for it here.

    \b
    handlens data mixtures
    handlens data mixtures sft-1

    Amounts are those of the paper (arXiv 2408.01800, tables 1 and 2). Each category names real corpora with their
    licences, and the kinds of handlens generate that stand for them.
    """  # noqa: D301
    from handlens.data.mixtures import MIXTURES, mixture_named

    chosen = [mixture_named(name)] if name else list(MIXTURES.values())
    if as_json:
        rows = [mixture.to_json() for mixture in chosen]
        click.echo(json.dumps(rows[0] if name else rows, ensure_ascii=False))
        return
    for mixture in chosen:
        after = f", fed after {mixture.after}" if mixture.after else ""
        click.echo(f"{mixture.name}: {mixture.title}; {mixture.samples:,} samples{after}")
        for row in mixture.categories:
            amount = f"{row.samples:,}" if row.samples else "not given"
            kinds = " ".join(f"{kind}:{share:g}" for kind, share in row.kinds.items()) or "no generator"
            click.echo(f"  {row.name:18} {amount:>12}  {' '.join(row.languages):6} {kinds}")
            if name:
                from handlens.data.mixtures import CORPORA

                for corpus in row.corpora:
                    click.echo(f"    {corpus}: {CORPORA[corpus].licence}")
