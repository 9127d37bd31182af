-- A text with spaces around each character of a writing that has none, with its marks, and without what nobody sees.
-- grain: a text: `spaced('我说ok')`
-- sources: unspaced
-- units: none
-- example: ' 我  说 ok'
create or replace macro spaced(written) as
if(
    strlen(written) = length(written),  -- ASCII, where nothing of this is
    written,
    regexp_replace(
        regexp_replace(written, '[\p{Cf}\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}]+', '', 'g'),
        '(' || unspaced() || '\p{M}*)', ' \1 ', 'g'
    )
);
