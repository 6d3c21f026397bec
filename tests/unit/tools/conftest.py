"""A small contract, compiled from text: tests change one thing in it and look at what the tools say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.descriptors import compile_image

CONTRACT = """
syntax = "proto3";

// A shop.
package trademesh.shop.v1;

import "buf/validate/validate.proto";
import "google/api/annotations.proto";
import "trademesh/shop/v1/rule.proto";

// Sells things.
service ShopService {
  // Buys a thing. The answer comes at once.
  rpc BuyThing(BuyThingRequest) returns (BuyThingResponse) {
    option (google.api.http) = {post: "/v1/shops/{shop_id}/things" body: "*"};
  }

  // Lists things.
  rpc ListThings(ListThingsRequest) returns (stream ListThingsResponse) {
    option (google.api.http) = {get: "/v1/shops/{shop_id}/things"};
  }
}

// Why not.
enum RefusalReason {
  // Not stated.
  REFUSAL_REASON_UNSPECIFIED = 0;
  // None left.
  REFUSAL_REASON_SOLD_OUT = 1;
}

// Buys.
message BuyThingRequest {
  // The shop.
  string shop_id = 1 [(buf.validate.field).string = {min_len: 1, max_len: 8}];
  // The price.
  string price = 2 [(buf.validate.field).string.(trademesh.shop.v1.price) = true];
  // How many.
  int32 count = 3 [(buf.validate.field).int32 = {gte: 1, lte: 9}];
  // Tags.
  map<string, string> tags = 4 [(buf.validate.field).map = {max_pairs: 2, keys: {string: {max_len: 3}}}];
}

// Bought.
message BuyThingResponse {
  // What became of it.
  oneof result {
    // A receipt number.
    int64 receipt = 1;
    // Why not.
    RefusalReason reason = 2;
  }
}

// Lists.
message ListThingsRequest {
  // The shop.
  string shop_id = 1 [(buf.validate.field).string.min_len = 1];
  // Which.
  Filter filter = 2;
  // At most.
  int32 page_size = 3 [(buf.validate.field).int32 = {gte: 0, lte: 50}];
}

// Which things.
message Filter {
  // Names that begin so.
  string prefix = 1;
}

// Listed.
message ListThingsResponse {
  // Their names.
  repeated string names = 1;
}
"""
RULE = """
syntax = "proto2";

// Shared rules.
package trademesh.shop.v1;

import "buf/validate/validate.proto";

// Shared rules.
extend buf.validate.StringRules {
  // A price.
  optional bool price = 71001 [(buf.validate.predefined).cel = {
    id: "price"
    message: "must be a price"
    expression: "this.matches('^[0-9]+(\\\\\\\\.[0-9]{2})?$') && !this.matches('^0+$')"
  }];
}
"""

Compile = Callable[..., bytes]


@pytest.fixture
def proto_root(tmp_path: Path) -> Path:
    """Return a proto folder that holds the small contract."""
    home = tmp_path / "proto" / "trademesh" / "shop" / "v1"
    home.mkdir(parents=True)
    (home / "rule.proto").write_text(RULE)
    (home / "shop.proto").write_text(CONTRACT)
    return tmp_path / "proto"


@pytest.fixture
def compile_changed(proto_root: Path) -> Compile:
    """Return a function that compiles the contract after replacing pieces of its text: `compile_changed((old, new), ...)`."""

    def compiled(*changes: tuple[str, str]) -> bytes:
        for name, text in (("shop.proto", CONTRACT), ("rule.proto", RULE)):
            for old, new in changes:
                text = text.replace(old, new)
            (proto_root / "trademesh" / "shop" / "v1" / name).write_text(text)
        return compile_image(proto_root=proto_root, source_info=True)

    return compiled
