-- Texts as one, with spaces between them where their writing has them: `joined(['今天', '很好', 'ok'])`.
-- grain: a text; null for null
-- sources: unspaced
-- units: none
-- example: '今天很好ok'
create or replace macro joined(texts) as
if(
    strlen(array_to_string(texts, '')) = length(array_to_string(texts, '')),  -- ASCII
    array_to_string(texts, ' '),
    replace(
        regexp_replace(
            regexp_replace(
                array_to_string(texts, chr(31)), '(' || unspaced() || '[\p{Mn}\p{Me}\p{Cf}]*)\x1F', '\1', 'g'
            ),
            '\x1F([\p{Mn}\p{Me}\p{Cf}]*' || unspaced() || ')', '\1', 'g'
        ),
        chr(31), ' '
    )
);
