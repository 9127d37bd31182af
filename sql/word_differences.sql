-- Where two recipes heard different words: `from word_differences('5a0e…', '77b1…')`.
-- grain: one row per word of the first recipe beside the word of the second that is spoken at the same time, where the two
--        are not equal (but for case and punctuation) or one of them is missing; recordings that both transcribed, channel by
--        channel where both have as many transcripts of it
-- sources: segments, recordings
-- units: start_s seconds from the recording's first sample, of the word that is there; confidences in [0, 1]
-- cost: a full scan of the words of both recipes
-- example: s3://archive/a.flac | 31.2 | 'forty' | 'fourteen' | 0.98 | 0.55
create or replace macro word_differences(first_recipe, second_recipe) as table
with shared as (
    select
        uri, recording_id,
        min(num_transcripts) > 1 and min(num_transcripts) = max(num_transcripts) as is_by_channel
    from recordings
    where recipe_id in (first_recipe, second_recipe)
    group by uri, recording_id
    having count(distinct recipe_id) = 2
),
heard as (
    select
        recipe_id, recording_id,
        if(is_by_channel, audio_track || '.' || channel, '') as place,
        segment_index, generate_subscripts(words, 1) as word_index, unnest(words) as said
    from segments
    join shared using (recording_id)
    where recipe_id in (first_recipe, second_recipe)
),
spelled as (
    select
        recipe_id, recording_id, place, segment_index, word_index, said.word as word,
        regexp_replace(lower(said.word), '[^\p{L}\p{M}\p{N}]+', '', 'g') as term,
        said.start_s as start_s, said.end_s as end_s,
        (said.start_s + said.end_s) / 2 as middle_s,
        said.confidence as confidence
    from heard
),
first_words as (select * from spelled where recipe_id = first_recipe),
second_words as (select * from spelled where recipe_id = second_recipe),
-- Of the second recipe, the word that sounds in the middle of the first one's; else one whose middle lies in the first's.
around as (
    select
        first_words.*,
        if(second_words.end_s > first_words.middle_s, second_words, null) as over_middle
    from first_words
    asof left join second_words
        on
            first_words.recording_id = second_words.recording_id
            and first_words.place = second_words.place
            and first_words.middle_s >= second_words.start_s
),
paired as (
    select
        around.* exclude (over_middle),
        coalesce(over_middle, if(second_words.middle_s >= around.start_s, second_words, null)) as other
    from around
    asof left join second_words
        on
            around.recording_id = second_words.recording_id
            and around.place = second_words.place
            and around.end_s > second_words.middle_s
),
missing as (
    select second_words.*
    from second_words
    anti join (
        select recording_id, other.segment_index as segment_index, other.word_index as word_index
        from paired
        where other is not null
    ) as taken using (recording_id, segment_index, word_index)
),
differences as (
    select
        recording_id, start_s, word as first_word, other.word as second_word, confidence as first_confidence,
        other.confidence as second_confidence
    from paired
    where other is null or other.term <> term
    union all
    select recording_id, start_s, null, word, null, confidence
    from missing
)
select
    shared.uri, differences.start_s, differences.first_word, differences.second_word, differences.first_confidence,
    differences.second_confidence, recording_id
from differences
join shared using (recording_id)
order by shared.uri, differences.start_s, differences.first_word;
