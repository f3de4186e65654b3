-- The highest position that was ever drawn, from the sequence itself.
select case when is_called then last_value else 0 end from gobo.events_position_seq
