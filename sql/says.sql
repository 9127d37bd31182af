-- Whether a text has words that follow each other, as `search` and `phrase` ask: `says('One, two; three', 'two three')`.
-- grain: true or false; whatever stands between the words that is no part of a word, and false without words to look for
-- sources: terms
-- units: none
-- example: true
create or replace macro says(written, query) as
terms(query) <> [] and if(
    strlen(written) = length(written),  -- ASCII, where no text need be taken apart
    regexp_matches(replace(lower(written), '_', ' '), '\b' || array_to_string(terms(query), '[^a-z0-9]+') || '\b'),
    contains(' ' || array_to_string(terms(written), ' ') || ' ', ' ' || array_to_string(terms(query), ' ') || ' ')
);
