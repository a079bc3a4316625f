"""In bfloat16 on a CPU, attention is that of float32; a forward pass that is repeated is the same."""

from contextlib import nullcontext

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from stella_assets.core.attention import Float32Attention, autocast_on_cpu, forward_again


def states() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 7, 8, generator=random).bfloat16().requires_grad_() for _ in range(3)]


def test_attention_is_that_of_float32_and_gives_the_format_that_it_was_given():
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask[1, :, :, 5:] = False
    own = states()
    with autocast_on_cpu():
        found = scaled_dot_product_attention(*own, attn_mask=mask)
        named = scaled_dot_product_attention(query=own[0], key=own[1], value=own[2], attn_mask=mask)
        product = own[0] @ own[1].mT
    exact = [state.detach().float().requires_grad_() for state in own]
    expected = scaled_dot_product_attention(*exact, attn_mask=mask)
    assert found.dtype == product.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    assert torch.equal(named, found)
    found.float().square().sum().backward()
    expected.bfloat16().float().square().sum().backward()
    for ours, theirs in zip(own, exact, strict=True):
        assert torch.equal(ours.grad, theirs.grad.bfloat16())


def test_a_mask_of_numbers_is_widened_with_the_states():
    own, mask = states(), torch.zeros(2, 1, 7, 7, dtype=torch.bfloat16)
    mask[:, :, :, 0] = -3
    with autocast_on_cpu():
        found = scaled_dot_product_attention(*own, mask)
    assert torch.equal(found, scaled_dot_product_attention(*(s.float() for s in own), mask.float()).bfloat16())


def test_outside_and_on_other_devices_nothing_changes():
    with autocast_on_cpu():
        _, within = forward_again()
    _, after = forward_again()
    assert isinstance(within, Float32Attention)
    assert isinstance(after, nullcontext)
    own = states()
    with after:
        plain = scaled_dot_product_attention(*own)
    assert torch.equal(plain, scaled_dot_product_attention(*own))


def test_a_repeated_forward_pass_gives_the_same_gradient():
    """torch compares the formats of what both passes keep, and refuses others."""
    own, other = states(), states()
    with autocast_on_cpu():
        whole = scaled_dot_product_attention(*own)
        repeated = checkpoint(scaled_dot_product_attention, *other, use_reentrant=False, context_fn=forward_again)
    for found in (whole, repeated):
        found.float().square().sum().backward()
    for first, second in zip(own, other, strict=True):
        assert torch.equal(first.grad, second.grad)
