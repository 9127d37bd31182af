-- How right each recipe is, by its newest evaluation on each manifest.
-- grain: one row per recipe, manifest (by its bytes), path, steps and normaliser; figures compare within one manifest_digest
-- sources: evaluations
-- units: wer and cer are shares of words and characters; substituted, deleted, inserted are shares of the reference's words
-- example: 5a0e… | connected.jsonl | diffusion | max_steps 8 | basic | wer 0.0059 | num_utterances 300
create or replace view accuracy as
select
    recipe_id, manifest, path, max_steps, normalizer, wer, cer,
    num_substitutions / nullif(num_reference_words, 0) as substituted,
    num_deletions / nullif(num_reference_words, 0) as deleted,
    num_insertions / nullif(num_reference_words, 0) as inserted,
    num_reference_words, num_utterances, rtfx, started_at, manifest_digest, run_id
from evaluations
qualify row_number() over (
    partition by recipe_id, manifest_digest, path, max_steps, normalizer
    order by started_at desc, run_id
) = 1
order by manifest, wer, recipe_id, path, max_steps;
