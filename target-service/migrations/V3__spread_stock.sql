-- Stock that is spread over many rows, so that buyers do not queue for one. What is here is not in item.available, which is the
-- pot that it was dealt from and that units come back to: what is for sale is the sum of all of them.
CREATE TABLE stock_shard (
    item_id   bigint  NOT NULL,
    shard     integer NOT NULL,
    available bigint  NOT NULL CHECK (available >= 0),
    PRIMARY KEY (item_id, shard)
) WITH (fillfactor = 20);

-- One row for each unit; who buys it deletes it.
CREATE TABLE stock_unit (
    item_id bigint  NOT NULL,
    unit    bigint NOT NULL,
    PRIMARY KEY (item_id, unit)
);
