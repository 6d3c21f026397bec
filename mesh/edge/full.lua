-- Of a full pool. Whoever finds it full closes the door for HOLD_MS, and who comes meanwhile is refused before anybody asks who calls; then
-- somebody finds out again. A word that is taken for so long, and no count: a request that gets lost could leave a count too high for good.
local closed_until = 0

function envoy_on_request(handle)
  local left = closed_until - tonumber(handle:timestamp())
  -- A clock that was set back must not keep the door closed.
  if left > 0 and left <= HOLD_MS then
    handle:respond({[":status"] = STATUS}, "")
  end
end

function envoy_on_response(handle)
  if handle:headers():get(HEADER) then
    closed_until = tonumber(handle:timestamp()) + HOLD_MS
  end
end
