-- Characters of writings without spaces between words (Thai, Khmer, Kana, Han …), as a class of a regular expression.
-- grain: a text; the same characters as `UNSPACED` in dgasr/records.py
-- sources: none
-- units: none
-- example: '[\x{0E00}-…\x{3FFFF}]'
create or replace macro unspaced() as
'[\x{0E00}-\x{0FFF}\x{1000}-\x{109F}\x{1780}-\x{17FF}\x{1950}-\x{19FF}\x{1A20}-\x{1AAF}\x{1B00}-\x{1B7F}\x{2E80}-\x{2FFF}\x{3000}-\x{312F}'
|| '\x{3190}-\x{4DBF}\x{4E00}-\x{9FFF}\x{A980}-\x{A9FF}\x{AA60}-\x{AADF}\x{F900}-\x{FAFF}\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF20}'
|| '\x{FF5F}-\x{FF9F}\x{1AFF0}-\x{1B16F}\x{20000}-\x{3FFFF}]';
